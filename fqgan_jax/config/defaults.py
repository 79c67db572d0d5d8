"""Every field of a config with its default and one line on what it is."""

from ml_collections import ConfigDict


def tokenizer_defaults() -> ConfigDict:
    """The published dual tokenizer at f = 16; every field a tokenizer run has."""
    config = ConfigDict()
    config.task = "tokenizer"  # which task the config trains
    config.seed = 0  # seed of initialization, batches and augmentation

    config.model = model = ConfigDict()
    model.num_codebooks = 2  # K
    model.codebook_size = 16384  # N, entries per sub-codebook
    model.code_dim = 8  # d
    model.factorization = "adapters"  # "adapters": a head per sub-codebook; "split": channels split K ways
    model.quantizer = "vq"  # "vq" (the paper), "simvq", "ibq", "lfq", "bsq" or "fsq"; a file of yours can add others
    model.levels = ()  # of each dimension of "fsq"; empty: equal numbers whose product is codebook_size
    model.gradient = "straight_through"  # from entries to latents: "straight_through" or "rotation"
    model.nested = ()  # probability that a step leaves out each sub-codebook, or the last alone; empty: none
    model.base_width = 128  # channels of the first level
    model.multipliers = (1, 1, 2, 2, 4)  # width of each level; len - 1 halvings
    model.num_blocks = 2  # residual blocks a level (one more in the decoder)
    model.norm_groups = 32  # groups of the group normalization; fewer for narrow models
    model.z_channels = 256  # width around the latents; must be K * d for "split"
    model.adapter_depth = 6  # transformer blocks of each adapter
    model.adapter_heads = 8  # attention heads of each adapter
    model.feature_depth = 3  # transformer blocks of each feature head
    model.feature_heads = 8  # attention heads of each feature head
    model.normalized = True  # compare latents and entries as unit vectors
    model.temperature = 0.01  # temperature of the soft assignment of the entropy loss
    model.chunk_tokens = 512  # tokens per device whose distances to the codebooks are in memory at a time
    model.remat = "none"  # what the backward pass recomputes: "none", "blocks" or "full" (least memory)
    model.unroll = False  # transformer layers in a row instead of in a loop: fewer copies on GPUs, longer compilation
    model.dtype = "bfloat16"  # data type of the computation; parameters stay float32

    config.teachers = (None, "clip-vit-large-patch14")  # per sub-codebook whose feature it predicts, or None
    config.frozen_dtype = "bfloat16"  # data type of the computation in teachers and perceptual loss

    config.loss = loss = ConfigDict()
    loss.reconstruction = 1.0  # weight of the mean squared error
    loss.perceptual = 1.0  # weight of LPIPS; 0: none, and its weights are not needed
    loss.codebook = 1.0  # weight of the codebook loss
    loss.commitment = 0.25  # weight of the commitment loss
    loss.soft_entries = 1.0  # weight of the loss that only the quantizer "ibq" has
    loss.entropy = 0.03  # weight of the entropy loss
    loss.disentanglement = 0.1  # weight of the disentanglement loss
    loss.feature = 0.5  # weight of each feature prediction
    loss.feature_group = 0  # examples that contrast in it; 0: the global batch (published: a device's share)

    config.adversarial = adversarial = ConfigDict()
    adversarial.discriminator = "patch"  # "patch" (PatchGAN), "style" (StyleGAN2's) or "none"
    adversarial.loss = "hinge"  # "hinge", "vanilla" or "non_saturating"
    adversarial.weight = 0.5  # weight of the adversarial losses of both networks
    adversarial.start = 20_000  # first step at which they count
    adversarial.discriminator_start = 0  # first step at which the discriminator learns; 0: with adversarial.start
    adversarial.ramp = 1  # steps over which their weight then grows
    adversarial.adaptive = False  # balance its gradient with that of the reconstruction losses
    adversarial.adaptive_largest = 1e4  # largest factor of that balance
    adversarial.lecam = 0.0  # weight of LeCAM regularization
    adversarial.lecam_decay = 0.999  # decay of its moving averages of the logits
    adversarial.r1 = 0.0  # weight of the penalty on the gradient at real images
    adversarial.width = 64  # channels of the first convolution ("patch"), an eighth of the largest ("style")
    adversarial.optimizer = _optimizer_defaults(average=False)

    config.perturbation = perturbation = ConfigDict()
    perturbation.tokens = 0.0  # probability that a code of a perturbed image is replaced before decoding; 0: none
    perturbation.images = 0.1  # probability that an image is perturbed
    perturbation.nearest = 100  # a replacement is one of so many entries nearest to the latent

    config.kmeans_batches = 0  # codebooks begin as the k-means centres of so many batches' latents; 0: random
    config.reseed_after = 0  # unused codebook entries move to random latents after so many steps; 0: never

    config.data = _data_defaults()
    config.data.source = "photos"  # an image folder, a prepared one, "tfds:NAME[:VERSION]", tar files, or "photos"
    config.data.data_dir = ""  # folder of prepared tensorflow-datasets; empty: their own default
    config.data.image_size = 256  # side of the square crops
    config.data.validation_fraction = 0.05  # held-out part of a source without a validation split
    config.data.full_decode = False  # decode JPEG files for training at full scale even if less would do
    config.data.largest_skipped_fraction = 0.01  # unreadable images allowed, at least ten; 0: none; more end the run
    config.data.features = ""  # folder that `fqgan features` wrote: no teacher is needed; empty: they run in the step
    config.data.num_workers = 0  # processes that read and augment, each with num_threads; 0: threads of this one

    config.optimizer = _optimizer_defaults()
    config.train = _train_defaults()
    config.train.accumulate = 1  # parts into which a batch is split to save memory; the result is the same
    config.train.evaluate_count = 0  # validation images that evaluations count, from the first on; 0: all
    config.mesh = _mesh_defaults()

    config.evaluation = evaluation = ConfigDict()
    evaluation.reconstructions = 0  # steps between measurements of validation images; 0: train.evaluate_every
    evaluation.pictures = 0  # steps between pictures of reconstructions; 0: train.evaluate_every
    return config


def generator_defaults() -> ConfigDict:
    """The published FAR-B; every field a generator run has. K, N, grid and classes come from the code cache."""
    config = ConfigDict()
    config.task = "generator"  # which task the config trains
    config.seed = 0  # seed of initialization, batches and dropout

    config.model = model = ConfigDict()
    model.width = 1024  # D
    model.depth = 24  # blocks of the backbone
    model.num_heads = 16  # attention heads, backbone and head
    model.head_depth = 3  # blocks of the head that predicts a position's K codes
    model.dropout = 0.1  # on input tokens, attention and MLP outputs
    model.swiglu_multiple = 256  # the SwiGLU's hidden width is rounded up to it
    model.remat = "none"  # what the backward pass recomputes: "none", "blocks" or "full" (least memory)
    model.unroll = False  # transformer layers in a row instead of in a loop: fewer copies on GPUs, longer compilation
    model.dtype = "bfloat16"  # data type of the computation; parameters and logits stay float32

    config.loss = loss = ConfigDict()
    loss.next_code = 1.0  # weight of the cross-entropy of the next code, the mean over sub-codebooks

    config.class_dropout = 0.1  # share of labels replaced by the null class

    config.data = _data_defaults()
    config.data.codes = ""  # folder that `fqgan tokenize` wrote

    config.optimizer = _optimizer_defaults()
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.05
    config.train = _train_defaults()
    config.mesh = _mesh_defaults()

    config.evaluation = evaluation = ConfigDict()
    evaluation.samples = 0  # steps between measurements of sample.count samples; 0: train.evaluate_every
    evaluation.pictures = 0  # steps between pictures of samples; 0: train.evaluate_every

    config.sample = sample = ConfigDict()
    sample.per_class = 2  # images of each of the first 8 classes, drawn at every evaluation
    sample.guidance = 2.0  # scale of classifier-free guidance
    sample.temperature = 1.0  # logits are divided by it; 0: always the most probable code
    sample.top_k = 0  # only so many of the most probable codes; 0: all
    sample.top_p = 1.0  # only the most probable codes that together reach this probability; 1: all
    sample.tokenizer = ""  # checkpoint that decodes them; empty: no pictures
    sample.count = 0  # samples for gFID, precision, recall and inception score at every evaluation; 0: none
    sample.reference = ""  # what they are compared with: statistics (.npz) or images
    return config


def task_defaults() -> ConfigDict:
    """Fields that every task has; the defaults of your own task start from them."""
    config = ConfigDict()
    config.task = ""  # which task the config trains
    config.seed = 0  # seed of initialization and batches
    config.data = _data_defaults()
    config.optimizer = _optimizer_defaults()
    config.train = _train_defaults()
    config.mesh = _mesh_defaults()
    return config


def _data_defaults() -> ConfigDict:
    data = ConfigDict()
    data.batch_size = 256  # global batch, over all devices and hosts
    data.num_threads = 8  # that read and augment, on each host
    return data


def _optimizer_defaults(*, average: bool = True) -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.learning_rate = 2e-4  # peak
    optimizer.schedule = "constant"  # "constant", "cosine", "linear" or "stable_decay" to the floor at the last step
    optimizer.floor = 0.0  # share of the peak at which the schedule ends
    optimizer.decay_steps = 0  # steps over which "stable_decay" falls at the end
    optimizer.warmup_steps = 0  # linear warm-up
    optimizer.b1 = 0.9  # Adam's first decay
    optimizer.b2 = 0.95  # Adam's second decay
    optimizer.weight_decay = 0.0  # on matrices only
    optimizer.clip = 1.0  # global gradient norm
    if average:
        optimizer.ema_decay = 0.0  # decay of the moving average of the weights; 0: none
    return optimizer


def _train_defaults() -> ConfigDict:
    train = ConfigDict()
    train.steps = 200_000  # in all
    train.log_every = 100  # steps between log lines
    train.evaluate_every = 5000  # steps between evaluations without a period of their own; all run at the end too
    train.checkpoint_every = 5000  # steps between checkpoints; also at the end
    train.keep_checkpoints = 3  # number of newest checkpoints to keep
    train.keep_every = 0  # keep checkpoints at multiples of this step forever; 0: none
    train.keep_best = ""  # validation metric whose best checkpoint is kept; "-rfid": lower is better; empty: none
    train.init_from = ""  # weights to start from: whatever --checkpoint takes; empty: random
    train.freeze = ()  # patterns of parameters that stay as they are: ("encoder", "heads", "decoder/level[01]")
    train.max_skipped = 100  # the run stops after so many updates in a row that were not finite
    return train


def _mesh_defaults() -> ConfigDict:
    mesh = ConfigDict()
    mesh.data = -1  # devices that only split the batch; -1: all that are left
    mesh.fsdp = 1  # devices that split both the batch and the parameters
    mesh.tensor = 1  # devices that share the heads, hidden channels and vocabulary of each layer; they see one batch
    return mesh
