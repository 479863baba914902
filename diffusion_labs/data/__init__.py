"""Data sets: the embedded digits, MNIST-format files, folders and tars of images, streams; and batches of them."""

from diffusion_labs.data.batches import Batches, MapDataset
from diffusion_labs.data.digits import Digits
from diffusion_labs.data.download import download_mnist
from diffusion_labs.data.encoded import EncodedDataset, encode_dataset
from diffusion_labs.data.errors import DataError, UnavailableError
from diffusion_labs.data.folder import ImageFolder
from diffusion_labs.data.idx import read_idx
from diffusion_labs.data.idx_images import IDXImages
from diffusion_labs.data.joined import JoinedDataset
from diffusion_labs.data.read_ahead import ReadAhead
from diffusion_labs.data.stream_batches import SampleStream, StreamBatches
from diffusion_labs.data.tar_images import TarImages
from diffusion_labs.data.tar_stream import TarStream
from diffusion_labs.data.template_captions import TemplateCaptions
from diffusion_labs.data.tensor_images import TensorImages

__all__ = [
    "Batches",
    "DataError",
    "Digits",
    "EncodedDataset",
    "IDXImages",
    "ImageFolder",
    "JoinedDataset",
    "MapDataset",
    "ReadAhead",
    "SampleStream",
    "StreamBatches",
    "TarImages",
    "TarStream",
    "TemplateCaptions",
    "TensorImages",
    "UnavailableError",
    "download_mnist",
    "encode_dataset",
    "read_idx",
]
