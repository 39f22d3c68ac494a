"""The sets themselves: they differ only in where they come from; their layouts are in `sel.data.sources`."""

from sel.data.builders.paired import PairedBuilder


class LolV1(PairedBuilder):
    """LOL v1, 485 and 15 captured pairs of 600 x 400."""

    HOMEPAGE = "https://daooshee.github.io/BMVC2018website/"
    CITATION = "Wei et al., Deep Retinex Decomposition for Low-Light Enhancement, BMVC 2018, arXiv:1808.04560"


class LolV2Real(PairedBuilder):
    """LOL v2, 689 and 100 captured pairs of 600 x 400."""

    HOMEPAGE = "https://github.com/flyywh/CVPR-2020-Semi-Low-Light"
    CITATION = "Yang et al., Sparse Gradient Regularized Deep Retinex Network, IEEE TIP 2021"


class LolV2Synthetic(LolV2Real):
    """LOL v2, 900 and 100 photographs of 384 x 384 darkened by their histograms."""


class Sice(PairedBuilder):
    """SICE, series of exposures with a reference chosen among their fusions; the darker exposures are used."""

    HOMEPAGE = "https://github.com/csjcai/SICE"
    CITATION = "Cai et al., Learning a Deep Single Image Contrast Enhancer from Multi-Exposure Images, IEEE TIP 2018"


class Lsrw(PairedBuilder):
    """LSRW, pairs captured with a telephone (Huawei) and a camera (Nikon)."""

    HOMEPAGE = "https://github.com/JianghaiSCU/R2RNet"
    CITATION = "Hai et al., R2RNet: Low-light Image Enhancement via Real-low to Real-normal Network, arXiv:2106.14501"


class Ntire2024LowLight(PairedBuilder):
    """NTIRE 2024 low light, 230 training scenes of up to 6000 x 4000; of the others the references are not public."""

    HOMEPAGE = "https://cvlai.net/ntire/2024/"
    CITATION = "Liu et al., NTIRE 2024 Challenge on Low Light Image Enhancement: Methods and Results, arXiv:2404.14248"
