"""``python -m benchmarks NAME [OPTIONS]``, or ``make bench ARGS="NAME [OPTIONS]"``: run a benchmark."""

import importlib
import sys

from diffusion_labs.memory import keep_memory

BENCHMARKS = {
    "autoencoder_memory": "peak memory of encoding and decoding large images in tiles, and the seams",
    "caption_sheet": "samples of a run of ldm-emoji or dalle2-emoji for 25 captions, beside training images",
    "compatibility": "which component works with compile, export, precisions, DDP and FSDP2: docs/compatibility.md",
    "deep_cache": "time and error of sampling that reuses features, beside fewer steps: docs/deep-cache.md",
    "dalle2_quality": "images from text, prior and inversion of a run of dalle2-mnist, and its gates",
    "image_quality": "recognition, diversity and Frechet distance of a run's samples, beside real images",
    "kernels": "layers, training and sampling steps of the ADM U-Net with and without the kernels for the CPU",
    "import_time": "what `import diffusion_labs` costs beyond `import torch`, and how soon the command line answers",
    "input_pipeline": "the time of making a batch, as a share of a training step",
    "keeping": "what samplers gain by keeping what does not change from step to step: docs/keeping.md",
    "latent_quality": "reconstruction, latents and samples of a run of ldm-mnist, and its gates",
    "performance": "all questions of speed, and the page of the answers: docs/performance.md",
    "plan_memory": "memory of real updates beside that which `diffusion-labs plan` tells, and its gates",
    "sampler_overhead": "microseconds of each step of a sampler beside its network, ours and other libraries'",
    "sampling_speed": "a guided sampling step of the same network, against other libraries",
    "scaling": "how time and memory grow with batch, pixels, width and steps",
    "solver_report": "error against calls for every solver, beside other libraries': docs/solvers.md",
    "time_to_accuracy": "wall time to the accuracy of diffusers' DDIM in 50 steps, on the network of a run",
    "training_speed": "images per second and memory of a training step, against other libraries",
}


def main() -> None:
    """Run the benchmark that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        print("usage: python -m benchmarks NAME [OPTIONS]\n")
        print("\n".join(f"  {name:18} {text}" for name, text in BENCHMARKS.items()))
        sys.exit(0 if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help") else 2)
    keep_memory()  # as on the command line; for other libraries, too
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":  # not in the processes that a benchmark starts
    main()
