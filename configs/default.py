"""What every run shares; the other files here change a few lines of it.

A value is changed on the command line by its key: `--config.loss.num_bins=16`. `configs/default.py:unet` has the other
network, whose section `model` has other keys.

Here stand the keys of every choice, so that choosing takes one flag: `--config.loss.name=l1`. Those that are not read
then are dropped. But **a key that somebody sets must be read**: naming it on the command line, or giving it another
value than here in a configuration file, is an error if the chosen loss, optimizer, ... does not read it.
"""

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder


def nafnet() -> ConfigDict:
    """Keys of the conditional NAFNet, at 1.3 M parameters."""
    model = ConfigDict()
    model.name = "nafnet"
    model.width = 32
    model.encoder_blocks = (1, 1, 1)
    model.middle_blocks = 1
    model.decoder_blocks = (1, 1, 1)
    model.norm_epsilon = 1e-5
    model.dtype = "float32"  # of the computation, or bfloat16; parameters are always float32
    return model


def unet() -> ConfigDict:
    """Keys of IR-SDE's conditional U-Net; its published models have width 64 and depth 4."""
    model = ConfigDict()
    model.name = "unet"
    model.width = 16
    model.depth = 3
    model.norm_epsilon = 1e-5
    model.dtype = "float32"
    return model


def get_config(model: str = "nafnet") -> ConfigDict:
    """A small network, the corrected spatial-entropy loss, and paired folders whose place is still to be given."""
    if model not in ("nafnet", "unet"):
        raise ValueError(f"variant of configs/default.py must be nafnet or unet, found {model!r}")
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 20_000
    config.batch_size = 8
    config.log_every = 20
    config.validate_every = 0  # steps between scores of a few validation images, for metrics.jsonl; 0: none
    config.max_skipped = 10  # steps in a row without a finite gradient, which change nothing, before training stops
    config.init_from = ""  # a checkpoint of the same network, whose parameters training begins with; "": random ones

    config.model = unet() if model == "unet" else nafnet()

    config.diffusion = ConfigDict()
    config.diffusion.kind = "cosine"  # cosine, linear or constant
    config.diffusion.num_steps = 100
    config.diffusion.max_sigma = 50 / 255  # standard deviation of the noise at t = T, in image units
    config.diffusion.eps = 0.005

    config.loss = ConfigDict()
    config.loss.name = "spatial_entropy"  # spatial_entropy, l1, l2 or mixture
    config.loss.divergence = "hellinger"  # hellinger, relative, cross or jensen_shannon
    config.loss.num_bins = 32
    config.loss.bandwidth = 0.5
    config.loss.kernel = "logistic"
    config.loss.windows = FieldReference((1, 3, 5), field_type=object)  # odd sizes, or "global"
    config.loss.variant = "corrected"
    config.loss.neighbor_weights = placeholder(str)  # drawn in each step: dirichlet, normal; by default all are equal
    config.loss.implementation = placeholder(str)  # sparse or dense; by default sparse on CPU, dense elsewhere
    # x_{t-1} is compared, which is noisy: clipping it to (0, 1) would leave dark pixels without gradient.
    config.loss.value_range = (-0.3, 1.3)
    config.loss.entropy = 1.0  # mixture: weights of the spatial entropy, of l1, and of l1 of blurred images
    config.loss.l1 = 0.1
    config.loss.blurred_l1 = 0.0
    config.loss.blur_sigma = 2.0  # pixels

    config.objective = ConfigDict()
    config.objective.compare = "x_prev"  # x_{t-1} after one reverse step; or x0, the predicted clean image
    config.objective.clip_x0 = FieldReference((0.0, 1.0), field_type=object)  # x0: range of the prediction, or None
    config.objective.t_sampling = "uniform"  # uniform, stratified or importance
    config.objective.t_weighting = "none"  # none, noise or min_snr
    config.objective.snr_cap = 5.0  # min_snr

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # adamw, adam or lion
    config.optimizer.schedule = "cosine"  # of the learning rate, after the warm-up: cosine, multistep or constant
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 200
    config.optimizer.end_learning_rate = 1e-6  # cosine
    config.optimizer.milestones = (0.5, 0.75, 0.9)  # multistep: steps, or fractions of num_steps
    config.optimizer.gamma = 0.5  # multistep: factor at each milestone
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 1e-4  # adamw and lion
    config.optimizer.clip_norm = 1.0  # 0: no clipping

    config.ema = ConfigDict()
    config.ema.decay = 0.999
    config.ema.every = 1
    config.ema.warmup = "ratio"  # ratio, power or none

    config.data = ConfigDict()
    config.data.name = "pairs"  # folders of pairs; `samples`: photographs that come with scikit-image
    config.data.root = ""
    config.data.train = "our485"  # ROOT/our485/{low,high}
    config.data.validation = "val"  # ROOT/val/{low,high}; or a fraction like 0.1: scenes of train
    config.data.cache_dir = ""  # decoded images; "" is sel/ in the user's cache folder
    config.data.cache_gib = 50.0  # most that it may hold: what was used last longest ago makes room
    config.data.strict = False  # whether the first bad image ends the run; otherwise bad ones are left out and listed
    config.data.crop_size = 128
    config.data.resize_chance = 0.0

    config.sampler = ConfigDict()
    config.sampler.method = "posterior"  # posterior, ddim, dpm_solver, sde or ode
    config.sampler.num_steps = 0  # at most those of the diffusion; 0: 16, but with sde and ode all
    config.sampler.clip_x0 = FieldReference((0.0, 1.0), field_type=object)  # but sde, ode: of the clean image; or None

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000
    config.checkpoint.keep = 2  # newest
    config.checkpoint.keep_best = 0  # best by validation_psnr; with validate_every, each validation saves one

    # How the work is done, not what: a run may go on with other values.
    config.compute = ConfigDict()
    config.compute.cpu_devices = 0  # on a CPU: devices, each with its part of a batch; 0: one per core
    config.compute.accumulate = 1  # parts of its images that a device takes one after another, to need less memory
    config.compute.remat = False  # compute the insides of blocks twice, to need less memory
    config.compute.parameter_shards = 1  # devices that one copy of parameters and optimizer is split over; 0: all
    return config
