"""Makes a second set of numbers in the reference's format, computed with our own networks.

Shapes, salt, noise, inputs, training configuration and bucket lists are others than the first
set's. It proves that the tests follow the manifest, and not that the numbers are right: those are
ours. Tolerances are the first set's.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from data.audio.spectrogram import mel_basis, spectrogram
from data.plan.buckets import bucket_batches
from tests.reference import double
from tests.reference.goldens import Reference
from tests.reference.rule import pseudo_random
from tests.reference.runners import RUNNERS, runner_of
from tests.reference.test_losses import (
    clipped_gradients,
    loss_outputs,
    segment_outputs,
    wavlm_outputs,
)
from tests.reference.test_mels import mel_outputs
from tests.reference.test_networks import FULL, variant
from tests.reference.training import Trace, run_steps, sums
from trainable.networks.generator.alignment import maximum_path

Tensors = dict[str, Tensor]
Entry = dict[str, Any]

SALT = "second set: "
NOISE = {"rule": "as in the first set", "amp": 0.8, "freq": 1.3, "phase": 0.4, "rand": 0.3}
B, TX, TY = 3, 17, 41
X_LENGTHS, Y_LENGTHS = [17, 9, 14], [35, 41, 28]
INTER, HIDDEN, FILTER, GIN, SPEAKERS, HEADS = 24, 36, 40, 20, 7, 3
HOP, SPEC, SEGMENT = 300, 601, 12  # samples, bins, frames
DATA = {
    "sampling_rate": 24000,
    "filter_length": 1200,
    "hop_length": HOP,
    "win_length": 1000,
    "n_mel_channels": 60,
    "mel_fmin": 30.0,
    "mel_fmax": 11000.0,
    "max_wav_value": 32768.0,  # not ours
}
DECODER = {
    "resblock": "2",
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [2, 4]],
    "upsample_rates": [5, 5, 4, 3],
    "upsample_initial_channel": 48,
    "upsample_kernel_sizes": [9, 11, 8, 5],
}
SYNTHESIZER = {
    "n_vocab": 112,
    "spec_channels": SPEC,
    "segment_size": SEGMENT,
    "inter_channels": INTER,
    "hidden_channels": HIDDEN,
    "filter_channels": FILTER,
    "n_heads": HEADS,
    "n_layers": 4,
    "kernel_size": 5,
    "p_dropout": 0.2,
    **DECODER,
    "n_speakers": SPEAKERS,
    "gin_channels": GIN,
    "n_flow_layer": 3,
    "n_layers_trans_flow": 3,
    "mas_noise_scale_initial": 0.02,
    "noise_scale_delta": 3e-6,
}
FLAGS = ("use_transformer_flow", "use_spk_conditioned_encoder", "use_noise_scaled_mas")
WAVLM = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_dim": [12, 20],
    "conv_kernel": [10, 8],
    "conv_stride": [5, 16],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 32,
    "max_bucket_distance": 100,
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
}
WAVLM_SALT = "another wavlm: "
WD = {"slm_hidden": 24, "slm_layers": 3, "initial_channel": 6, "use_spectral_norm": False}
INFER = (
    "two ways: some.* (sdp_ratio=0.7, noise_scale .5, noise_scale_w .7, length_scale 1.2), "
    "max9.* (sdp_ratio 0, max_len 9)"
)
TRAIN = {
    "learning_rate": 0.0005,
    "betas": [0.7, 0.95],
    "eps": 1e-8,
    "segment_size": SEGMENT * HOP,
    "c_mel": 30,
    "c_kl": 0.5,
    "bf16_run": False,
}
CONFIG = {
    "speakers": SPEAKERS,
    "gin": GIN,
    "inter": INTER,
    "hidden": HIDDEN,
    "filter": FILTER,
    "heads": HEADS,
    "layers": 4,
    "tf_layers": 3,
    "n_flow": 3,
    "kernel": 5,
    "resblock": DECODER["resblock"],
    "rk": DECODER["resblock_kernel_sizes"],
    "rd": DECODER["resblock_dilation_sizes"],
    "up": DECODER["upsample_rates"],
    "uic": DECODER["upsample_initial_channel"],
    "uk": DECODER["upsample_kernel_sizes"],
}
STEPS, START = 2, 2500


def random(name: str, *shape: int) -> Tensor:
    """Numbers in [-1, 1)."""
    values = pseudo_random(SALT + "input " + name, int(np.prod(shape)))
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def integers(name: str, high: int, *shape: int) -> Tensor:
    """Whole numbers from 0 to high - 1."""
    return ((random(name, *shape).double() + 1) / 2 * high).long().clamp(0, high - 1)


def mask(lengths: list[int], width: int) -> Tensor:
    """[B, 1, width]."""
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).float().unsqueeze(1)


def text(tokens: int, lengths: list[int]) -> Tensors:
    features = {
        key: random(key, len(lengths), 1024, tokens) for key in ("bert", "ja_bert", "en_bert")
    }
    return {
        "x": integers("x", 112, len(lengths), tokens),
        "x_lengths": torch.tensor(lengths),
        "tone": integers("tone", 12, len(lengths), tokens),
        "language": integers("language", 3, len(lengths), tokens),
        **features,
    }


def network(name: str, first: Entry) -> tuple[Entry, Tensors]:
    """Constructor arguments and inputs of a network's file."""
    g = {"g": random("g", B, GIN, 1)}
    hidden = {"x": random("hidden", B, HIDDEN, TX), "x_mask": mask(X_LENGTHS, TX)}
    latent = {"x": random("latent", B, INTER, TY), "x_mask": mask(Y_LENGTHS, TY)}
    widths = {
        "hidden_channels": HIDDEN,
        "filter_channels": FILTER,
        "n_heads": HEADS,
        "gin_channels": GIN,
    }
    speech = {"x": random("spec", B, SPEC, TY).abs(), "x_lengths": torch.tensor(Y_LENGTHS)}
    match runner_of(name):
        case "text_encoder":
            return widths | {"out_channels": INTER, "n_layers": 4, "kernel_size": 5}, text(
                TX, X_LENGTHS
            ) | g
        case "posterior_encoder":
            own = {
                "in_channels": SPEC,
                "out_channels": INTER,
                "hidden_channels": HIDDEN,
                "n_layers": 6,
            }
            return own | {"kernel_size": 3, "dilation_rate": 2, "gin_channels": GIN}, speech | g
        case "transformer_coupling_block":
            return widths | {
                "channels": INTER,
                "n_layers": 4,
                "kernel_size": 3,
                "n_flows": 2,
            }, latent | g
        case "residual_coupling_block":
            own = {
                "channels": INTER,
                "hidden_channels": HIDDEN,
                "kernel_size": 3,
                "n_layers": 2,
                "n_flows": 3,
            }
            return own | {"gin_channels": 0}, latent
        case "stochastic_duration_predictor":
            w = integers("w", 6, B, 1, TX).float() * hidden["x_mask"]
            own = {"in_channels": HIDDEN, "filter_channels": 50, "n_flows": 3, "gin_channels": GIN}
            return own, hidden | {"w": w} | g
        case "duration_predictor":
            return {
                "in_channels": HIDDEN,
                "filter_channels": 30,
                "kernel_size": 5,
                "gin_channels": GIN,
            }, hidden | g
        case "generator":
            own = {
                "initial_channel": INTER,
                "gin_channels": GIN,
                "resblock": first["ctor"]["resblock"],
            }
            return DECODER | own, {"x": random("z", B, INTER, 11)} | g
        case "reference_encoder":
            return {"spec_channels": SPEC, "gin_channels": GIN}, {
                "inputs": random("inputs", B, 130, SPEC)
            }
        case "synthesizer_forward" | "synthesizer_infer":
            flags = {key: first["ctor"][key] for key in FLAGS}
            speakers = {"n_speakers": SPEAKERS if first["ctor"]["n_speakers"] else 0}
            inputs = text(TX, X_LENGTHS) | {
                "y": speech["x"] * mask(Y_LENGTHS, TY),
                "y_lengths": speech["x_lengths"],
            }
            return SYNTHESIZER | flags | speakers, inputs | {"sid": integers("sid", SPEAKERS, B)}
        case "duration_discriminator":
            durations = {
                key: random(key, B, 1, TX) * hidden["x_mask"] for key in ("dur_r", "dur_hat")
            }
            return {
                "in_channels": HIDDEN,
                "filter_channels": 30,
                "gin_channels": 0,
            }, hidden | durations
        case "multi_period_discriminator":
            return {}, {"y": random("y", B, 1, 2501), "y_hat": random("y_hat", B, 1, 2501)}
        case "wavlm_discriminator":
            return {"slm_hidden": 24, "slm_layers": 3, "initial_channel": 5}, {
                "x": random("states", B, 72, 19)
            }
    raise AssertionError(name)


def kind(output: str) -> str:
    """Return what runs or numbered parts have in common: z of max9.z, hidden of hidden2."""
    return output.rpartition(".")[2].rstrip("0123456789")


def numbers_of_step(trace: Trace, number: int) -> Entry:
    """What a step of training left behind, in the files' words."""
    return {
        "global_step": number,
        "mas_noise_scale": trace.mas_noise_scale,
        "optimizer_order": trace.order,
        "scalars": {tag: value for tag, value in trace.scalars.items() if value == value},
        "grads": trace.grads,
        "params": trace.params,
        "draws_per_step": trace.draws,
    }


def zero_gradients(trace: Trace) -> dict[str, list[str]]:
    """Parameters of each network whose gradient is zero but for rounding."""
    found = {}
    for name, own in trace.grads.items():
        limit = double.ZERO_GRADIENT * trace.scalars[f"grad_norm_{name}"]
        found[name] = [key for key, (_, norm) in own.items() if norm < limit]
    return found


class Maker:
    """Writes the set file by file; the manifest last."""

    def __init__(self, folder: Path, first: Reference):
        self.first, self.folder = first, folder / "networks"
        self.folder.mkdir(parents=True)
        self.files: dict[str, Entry] = {}
        self.manifest = {
            "set": "second",
            "weights_rule": {"salt": SALT},
            "noise": NOISE,
            "files": self.files,
        }
        self.reference = Reference(folder)
        self.write("manifest.json", self.manifest)

    def write(self, file: str, content: Any, entry: Entry | None = None) -> None:
        """A file, and its entry of the manifest."""
        path = self.folder / file
        if file.endswith(".json"):
            path.write_text(json.dumps(content), encoding="utf-8")
        else:
            save_file({key: value.contiguous().clone() for key, value in content.items()}, path)
        if entry is not None:
            self.files[file] = entry | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def numbers(
        self, name: str, entry: Entry, inputs: Tensors, outputs: Tensors, draws: list[Any]
    ) -> None:
        """Write inputs and outputs, with the first set's tolerances of the most similar output."""
        first = self.first.entry(name)
        known = first["tolerance"]["atol_per_output"]

        def like(key: str) -> str:
            return key if key in known else next(k for k in known if kind(k) == kind(key))

        entry = {"what": first["what"], "ctor": {}, "train_mode": first["train_mode"]} | entry
        entry |= {
            "inputs": {key: list(value.shape) for key, value in inputs.items()},
            "outputs": {key: {"shape": list(value.shape)} for key, value in outputs.items()},
            "noise_draws": draws,
            "tolerance": {
                "rtol": 1e-5,
                "atol_per_output": {key: known[like(key)] for key in outputs},
            },
            "exact": [key for key in outputs if like(key) in first["exact"]],
        }
        stored = (
            {} if "inputs_from" in entry else {f"in.{key}": value for key, value in inputs.items()}
        )
        self.write(
            f"{name}.safetensors", stored | {f"out.{key}": v for key, v in outputs.items()}, entry
        )

    def networks(self) -> None:
        for name in (name for name in self.first.names() if runner_of(name)):
            first = self.first.entry(name)
            ctor, inputs = network(name, first)
            ctor = first["ctor"] | ctor
            runner = runner_of(name)
            assert runner is not None
            build, run = RUNNERS[runner]
            net = build(**ctor)
            self.reference.fill(net)
            net.train(first["train_mode"])
            entry = {"ctor": ctor, "outputs": dict.fromkeys(first["outputs"])}
            if name.startswith("synthesizer_infer"):
                entry["what"] = INFER
            if "inputs_from" in first:
                entry["inputs_from"] = first["inputs_from"]
            with torch.no_grad(), self.reference.noise() as noise:
                outputs = run(net, inputs, entry)
            self.numbers(name, entry, inputs, outputs, noise.draws)

    def losses(self) -> None:
        shapes = {f"{side}{i}": (B, 4 + i, 9) for side in ("fr", "fg") for i in range(5)}
        shapes |= {f"{side}{i}": (B, 7 + i) for side in ("dr", "dg") for i in range(12)}
        shapes |= dict.fromkeys(("z_p", "logs_q", "m_p", "logs_p"), (B, INTER, TY))
        shapes |= dict.fromkeys(("prob_r", "prob_g"), (B, TX, 1))
        inputs = {key: random(key, *shape) for key, shape in shapes.items()} | {
            "z_mask": mask(Y_LENGTHS, TY)
        }
        outputs = {key: value.reshape(-1) for key, value in loss_outputs(inputs).items()}
        self.numbers("losses", {}, inputs, outputs, [])

    def wavlm(self) -> None:
        ctor = {"wavlm_config": WAVLM, "model_sr": DATA["sampling_rate"], "slm_sr": 8000, "wd": WD}
        words = (
            f"WavLM entries filled with salt '{WAVLM_SALT}' + name, "
            "WavLMDiscriminator with salt '' + name"
        )
        entry = {"ctor": ctor, "weights": words, "train_mode": False}
        inputs = {key: random(key, B, 4001) for key in ("wav", "y_rec")}
        outputs, names = wavlm_outputs(self.reference, entry, inputs, (SALT + WAVLM_SALT, SALT))
        self.numbers("wavlm_loss", entry, inputs, outputs, [])
        self.write("tiny_wavlm_names.json", names, {})

    def commons(self) -> None:
        inputs = {
            "x": random("commons", B, 5, 26),
            "ids": torch.tensor([3, 0, 19]),
            "x_lengths": torch.tensor([26, 12, 20]),
            "dur": integers("dur", 5, B, 1, TX).float() * mask(X_LENGTHS, TX),
            "x_lengths_txt": torch.tensor(X_LENGTHS),
            **{f"grad{i}": random(f"grad{i}", 3, 2 + i) for i in range(4)},
        }
        frames = int(inputs["dur"].sum([1, 2]).max())
        with self.reference.noise() as noise:
            outputs = segment_outputs(
                inputs, slice_size=7, rand_size=9, mask_width=26, frames=frames
            )
        for prefix, value in {"clip_none": None, "clip_clip": 0.3}.items():
            outputs |= clipped_gradients(prefix, inputs, value)
        outputs = {
            key: value.reshape(-1) if key.endswith("norm") else value
            for key, value in outputs.items()
        }
        outputs["intersperse"] = torch.tensor([7, 200, 7, 2, 7, 2, 7])
        self.numbers(
            "commons", {"what": "intersperse([200, 2, 2], 7)"}, inputs, outputs, noise.draws
        )

    def mels(self) -> None:
        ctor = {"n_fft": 1200, "hop_size": HOP, "win_size": 1000, "num_mels": 60}
        ctor |= {
            "sampling_rate": DATA["sampling_rate"],
            "fmin": DATA["mel_fmin"],
            "fmax": DATA["mel_fmax"],
        }
        inputs = {"y": random("mel", B, 5123)}
        self.numbers("mel_processing", {"ctor": ctor}, inputs, mel_outputs(ctor, inputs["y"]), [])

    def alignment(self) -> None:
        tensors, cases = {}, []
        for case, (frames, tokens) in enumerate(
            [([4, 3], [4, 2]), ([50, 31, 44], [7, 30, 21]), ([9], [1])]
        ):
            neg_cent = random(f"path {case}", len(frames), max(frames), max(tokens))
            neg_cent = neg_cent if case else (3 * neg_cent).round()  # ties
            inside = (mask(frames, max(frames)).transpose(1, 2) * mask(tokens, max(tokens))).to(
                torch.uint8
            )
            path = maximum_path(neg_cent, inside.float()).to(torch.uint8)
            tensors |= {
                f"{case:02d}.neg_cent": neg_cent,
                f"{case:02d}.mask": inside,
                f"{case:02d}.path": path,
            }
            cases.append({"case": case, "b": len(frames), "t_y": max(frames), "t_x": max(tokens)})
        self.write("maximum_path.safetensors", tensors, {"cases": cases})  # without degenerate ones

    def sampler(self) -> None:
        lengths = {
            name: integers(name, 400, count).tolist()
            for name, count in {"many": 150, "few": 5}.items()
        }
        cases = []
        for name in lengths:
            for replicas, rank, epoch, shuffle in [
                (1, 0, 3, True),
                (3, 1, 12, True),
                (2, 1, 0, False),
            ]:
                case = {
                    "lengths": name,
                    "batch_size": 5,
                    "boundaries_in": [10, 60, 150, 151, 390],
                    "error": None,
                }
                options = {
                    "num_replicas": replicas,
                    "rank": rank,
                    "epoch": epoch,
                    "shuffle": shuffle,
                }
                boundaries = case["boundaries_in"]
                batches = bucket_batches(lengths[name], case["batch_size"], boundaries, **options)
                inside = [
                    np.searchsorted(boundaries, length, side="left") for length in lengths[name]
                ]
                sizes = [inside.count(b) for b in range(1, len(boundaries)) if inside.count(b)]
                total = case["batch_size"] * replicas
                cases.append(
                    case
                    | options
                    | {
                        "batches": batches,
                        "len": len(batches),
                        "num_samples": sum(map(len, batches)),
                        "num_samples_per_bucket": [-(-size // total) * total for size in sizes],
                    }
                )
        cases.append(cases[0] | {"batches": None, "error": "IndexError"})
        self.write("bucket_sampler.json", {"lengths": lengths, "cases": cases}, {})

    def state_dicts(self) -> None:
        entry = {
            key: self.first.manifest["files"]["state_dict_names.json"][key]
            for key in ("symbols", "num_tones")
        }
        entry |= {"num_languages": 3, "tensors": {}, "parameters": {}}
        names = {}
        for case in (
            "SynthesizerTrn/use_spk_conditioned_encoder=False, resblock=2",
            "SynthesizerTrn/n_layers=4,resblock_kernel_sizes=[3, 5, 7]",
            "WavLMDiscriminator/use_spectral_norm",
            "DurationDiscriminator/full_2.3",
        ):
            build, arguments = FULL[case.partition("/")[0]]
            state = build(**arguments | variant(case)).state_dict()
            names[case] = {key: list(value.shape) for key, value in state.items()}
            entry["tensors"][case] = len(state)
            entry["parameters"][case] = sum(value.numel() for value in state.values())
        self.write("state_dict_names.json", names, entry)

    def training(self) -> None:
        batches = {}
        for number in range(STEPS):
            lengths, frames = [15 + number, 11, 8], [30, 41 + number, 22]
            samples = torch.tensor(frames) * HOP
            own, longest = text(max(lengths), lengths), int(samples.max())
            own["y"] = (
                0.3 * random(f"sound {number}", B, 1, longest) * mask(samples.tolist(), longest)
            )
            own |= {"y_lengths": samples, "spec_lengths": torch.tensor(frames)}
            own["speakers"] = integers(f"speakers {number}", SPEAKERS, B)
            stft = (DATA["filter_length"], HOP, DATA["win_length"])
            spec = spectrogram(own["y"].squeeze(1), *stft, lengths=samples)
            own["spec_checksum"] = torch.tensor(sums(spec), dtype=torch.float64)
            batches |= {f"b{number}.{key}": value for key, value in own.items()}
        self.write("train_batches.safetensors", batches, {"inputs": dict.fromkeys(batches)})

        file = {
            "config": CONFIG,
            "data": DATA,
            "train": TRAIN,
            "start_global_step": START,
            "wavlm_config": WAVLM,
            "wd": WD,
            "noise": NOISE,
            "salt": SALT,
            "steps": [{}] * STEPS,
        }
        self.write("manifest.json", self.manifest)
        ours = Reference(self.folder.parent)
        single = list(run_steps(ours, file, "fast"))
        steps = [
            numbers_of_step(trace, START + number)
            | {
                "scalar_observed_rel_error": dict.fromkeys(trace.scalars, 0.0),
                "observed": {
                    # the gradient of a key's bias is zero but for rounding, under softmax
                    name: {
                        key: {
                            "grad_norm_rel": 1.0 if key.endswith("conv_k.bias") else 1e-6,
                            "param_sum_abs": 1e-7,
                        }
                        for key in own
                    }
                    for name, own in trace.grads.items()
                },
            }
            for number, trace in enumerate(single)
        ]
        self.write("train_steps.json", file | {"steps": steps}, {})

        traces = list(run_steps(ours, file, "fast", dtype=torch.float64))
        steps = [
            numbers_of_step(trace, START + number)
            | {"zero_gradient": zero_gradients(trace), "spec_checksum": trace.spectrogram}
            for number, trace in enumerate(traces)
        ]
        bank = mel_basis(
            n_fft=DATA["filter_length"],
            num_mels=DATA["n_mel_channels"],
            sampling_rate=DATA["sampling_rate"],
            fmin=DATA["mel_fmin"],
            fmax=DATA["mel_fmax"],
        ).double()
        rows, columns = bank.nonzero(as_tuple=True)
        nonzero = [rows.tolist(), columns.tolist(), bank[rows, columns].tolist()]
        file |= {"steps": steps, "mel_basis": {"shape": list(bank.shape), "nonzero": nonzero}}
        self.write(f"{double.NAME}.json", file)


def make(folder: Path, first: Reference) -> None:
    """Makes the set in a new folder.

    Args:
        folder: gets networks/.
        first: the set whose files, tolerances and variants are followed.
    """
    maker = Maker(folder, first)
    for part in (
        "networks",
        "losses",
        "wavlm",
        "commons",
        "mels",
        "alignment",
        "sampler",
        "state_dicts",
        "training",
    ):
        getattr(maker, part)()
    maker.write("manifest.json", maker.manifest)
