"""Formats of other libraries."""

from diffusion_labs.interop.compvis_autoencoder import load_compvis_autoencoder, to_compvis_autoencoder
from diffusion_labs.interop.compvis_checkpoint import (
    CompVisParts,
    load_compvis_checkpoint,
    read_compvis_checkpoint,
    to_compvis_checkpoint,
)
from diffusion_labs.interop.compvis_unet import load_compvis_unet, to_compvis_unet
from diffusion_labs.interop.diffusers_autoencoder import (
    DiffusersAutoencoder,
    load_diffusers_autoencoder,
    save_diffusers_autoencoder,
)
from diffusion_labs.interop.diffusers_config import DiffusersParts, from_diffusers_config
from diffusion_labs.interop.diffusers_config_written import to_diffusers_config
from diffusion_labs.interop.diffusers_dit import from_diffusers_dit_config, load_diffusers_dit, save_diffusers_dit
from diffusion_labs.interop.diffusers_mmdit import (
    from_diffusers_mmdit_config,
    load_diffusers_mmdit,
    save_diffusers_mmdit,
)
from diffusion_labs.interop.diffusers_pipeline import load_diffusers_pipeline, save_diffusers_pipeline
from diffusion_labs.interop.diffusers_pixart import (
    from_diffusers_pixart_config,
    load_diffusers_pixart,
    save_diffusers_pixart,
)
from diffusion_labs.interop.diffusers_prior import (
    DiffusersPrior,
    from_diffusers_prior_config,
    load_diffusers_prior,
    save_diffusers_prior,
)
from diffusion_labs.interop.diffusers_unclip import (
    from_diffusers_unclip_config,
    load_diffusers_unclip_decoder,
    save_diffusers_unclip_decoder,
)
from diffusion_labs.interop.diffusers_unclip_pipeline import load_diffusers_unclip
from diffusion_labs.interop.diffusers_unclip_written import save_diffusers_unclip
from diffusion_labs.interop.diffusers_unet import (
    from_diffusers_unet_config,
    load_diffusers_unet,
    save_diffusers_unet,
    to_diffusers_unet,
)
from diffusion_labs.interop.dit import load_dit, to_dit
from diffusion_labs.interop.exported_sampler import compile_sampler, export_sampler
from diffusion_labs.interop.guided_diffusion import load_guided_diffusion, to_guided_diffusion
from diffusion_labs.interop.key_rules import KeyRule, KeyRules, TensorChange, load_foreign
from diffusion_labs.interop.lpips_weights import load_lpips, to_lpips
from diffusion_labs.interop.torchmultimodal import (
    load_torchmultimodal_autoencoder,
    load_torchmultimodal_unet,
    to_torchmultimodal_autoencoder,
    to_torchmultimodal_unet,
)

__all__ = [
    "CompVisParts",
    "DiffusersAutoencoder",
    "DiffusersParts",
    "DiffusersPrior",
    "KeyRule",
    "KeyRules",
    "TensorChange",
    "compile_sampler",
    "export_sampler",
    "from_diffusers_config",
    "from_diffusers_dit_config",
    "from_diffusers_mmdit_config",
    "from_diffusers_pixart_config",
    "from_diffusers_prior_config",
    "from_diffusers_unclip_config",
    "from_diffusers_unet_config",
    "load_compvis_autoencoder",
    "load_compvis_checkpoint",
    "load_compvis_unet",
    "load_diffusers_autoencoder",
    "load_diffusers_dit",
    "load_diffusers_mmdit",
    "load_diffusers_pipeline",
    "load_diffusers_pixart",
    "load_diffusers_prior",
    "load_diffusers_unclip",
    "load_diffusers_unclip_decoder",
    "load_diffusers_unet",
    "load_dit",
    "load_foreign",
    "load_guided_diffusion",
    "load_lpips",
    "load_torchmultimodal_autoencoder",
    "load_torchmultimodal_unet",
    "read_compvis_checkpoint",
    "save_diffusers_autoencoder",
    "save_diffusers_dit",
    "save_diffusers_mmdit",
    "save_diffusers_pipeline",
    "save_diffusers_pixart",
    "save_diffusers_prior",
    "save_diffusers_unclip",
    "save_diffusers_unclip_decoder",
    "save_diffusers_unet",
    "to_compvis_autoencoder",
    "to_compvis_checkpoint",
    "to_compvis_unet",
    "to_diffusers_config",
    "to_diffusers_unet",
    "to_dit",
    "to_guided_diffusion",
    "to_lpips",
    "to_torchmultimodal_autoencoder",
    "to_torchmultimodal_unet",
]
