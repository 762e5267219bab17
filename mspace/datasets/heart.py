"""A beating heart, filmed by ultrasound."""

from typing import NamedTuple

from torch import Tensor

from ._errors import DatasetError, checked, optional


class Echo(NamedTuple):
    """Frames (T, H, W) in [0, 1], `rate` of them in a second."""

    frames: Tensor
    rate: float


def heart_echo() -> Echo:
    """Ultrasound of a heart: brightness (120, 400, 400) in [0, 1], 30 Hz, a beat in about 27 frames.

    From pydicom-data; the luma of the stored colours, cut to the sector where the heart is.
    """
    optional("data_store", "the heart echo", "pydicom-data")  # without it pydicom would ask the network
    optional("PIL", "the heart echo", "pillow")
    find = optional("pydicom.data", "the heart echo", "pydicom").get_testdata_file
    file = find("color3d_jpeg_baseline.dcm", download=False)
    if file is None:
        why = "the heart echo is not in the pydicom-data installed here"
        raise DatasetError(f"{why}: run `pip install pydicom-data==1.0.0`")
    pixels = optional("pydicom.pixels", "the heart echo", "'pydicom>=3'")
    # luma and colour are stored apart: the raw first plane is the picture, without a way through RGB
    luma = pixels.pixel_array(file, raw=True, decoding_plugin="pillow")[:, 40:440, 120:520, 0]
    return Echo(checked(luma, "the heart echo", (120, 400, 400)).div_(255), 30.0)
