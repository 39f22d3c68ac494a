"""TFDS builders of the public low-light sets: from a manual download to array_record files, without TensorFlow.

    LolV1(source="LOLdataset.zip", data_dir="data").download_and_prepare()
    tfds.data_source("lol_v1", split="train", data_dir="data")[0]  # {"id": bytes, "low": [h, w, 3], "high": [h, w, 3]}

Importing this package imports TFDS, so that nothing else here does. `sel.data.find_dataset` reads what they wrote.
"""

from sel.extras import needs

with needs("train"):
    from sel.data.builders.paired import PairedBuilder
    from sel.data.builders.sets import LolV1, LolV2Real, LolV2Synthetic, Lsrw, Ntire2024LowLight, Sice

BUILDERS = {builder.name: builder for builder in (LolV1, LolV2Real, LolV2Synthetic, Lsrw, Ntire2024LowLight, Sice)}

__all__ = ["BUILDERS", "LolV1", "LolV2Real", "LolV2Synthetic", "Lsrw", "Ntire2024LowLight", "PairedBuilder", "Sice"]
