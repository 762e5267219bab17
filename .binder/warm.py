"""Load what the chapters would download, so that it lies in the image; what cannot be had now is fetched by the reader."""

import warnings

from mspace import datasets

warnings.simplefilter("ignore", datasets.DataReplaced)
for load in (datasets.walking, datasets.heart_echo, datasets.mnist, datasets.minilm):
    try:
        load()
    except Exception as error:  # an image without one recording is better than none
        print(f"{load.__name__}: {error}")
