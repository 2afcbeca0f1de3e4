"""Extractors that `extract.py` compares; each runs alone in its own process.

    python contestants.py NAME FOLDER THREADS

Each imports only its own package, so that any Python with that package can run it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from turns import Work, serve


def _featreg(feature: str, precision: str, folder: Path, **settings: str) -> Any:
    from featreg.datasets.allocator import keep_memory
    from featreg.extract.extractors.registry import FeatureSpec, extractor_class, make_config

    keep_memory()  # as the pipeline does
    config = make_config(feature, settings)
    names = extractor_class(feature).weight_names(config)
    weights = tuple((name, folder / f"{name}.safetensors") for name in names)
    return FeatureSpec(feature, config, weights, precision=precision)  # type: ignore[arg-type]


def featreg_rows(feature: str, precision: str, audio: str, **settings: str) -> Any:
    """featreg, from files at the network's sample rate to frames, with common batches of clips."""

    def prepare(folder: Path, threads: int) -> Work:
        import soundfile

        from featreg.extract.extractors.batching import Batcher

        extractor = _featreg(feature, precision, folder, **settings).extractor()

        def work() -> Any:
            rows: list[Any] = []
            batcher = Batcher(extractor, lambda _, values: rows.append(values))
            for path in sorted(folder.glob(audio)):
                batcher.push(path.stem, soundfile.read(path, dtype="float32")[0])
            batcher.flush()
            return rows[0]

        return work

    return prepare


def featreg_shard(precision: str) -> Any:
    """featreg, from files to a VGGish shard, as in ``prep extract``."""

    def prepare(folder: Path, threads: int) -> Work:
        from dataclasses import replace

        from featreg.datasets.base import Clip, Dataset
        from featreg.datasets.shards.workdir import DatasetDir
        from featreg.extract.pipeline.plan import Request, make_plan
        from featreg.extract.pipeline.shard_job import extract_shard

        one = np.ones(1, np.uint8)
        files = sorted((folder / "mp3").iterdir())
        clips = tuple(Clip(path.stem, path, "train", one, one) for path in files)
        dataset = Dataset("benchmark", ("any",), clips)
        request = Request((_featreg("vggish", precision, folder),))

        def work() -> None:
            place = DatasetDir(folder / f"shards-{precision}" / dataset.name)
            shutil.rmtree(place.path, ignore_errors=True)
            place.write_dataset(dataset, ["vggish"])
            for job in make_plan(dataset, place, request).jobs:
                extract_shard(replace(job, threads=threads))

        return work

    return prepare


def featreg_network(feature: str, precision: str) -> Any:
    """featreg, only the network, on one batch."""

    def prepare(folder: Path, threads: int) -> Work:
        extractor = _featreg(feature, precision, folder).extractor()
        noise = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
        rows = np.resize(extractor.inputs(noise, 0, 8), (BATCH[feature], *SHAPE[feature]))
        return lambda: extractor.network(rows)

    return prepare


def matmul(precision: str) -> Any:
    """A matrix product: the peak performance of the machine in this precision."""

    def prepare(folder: Path, threads: int) -> Work:
        import torch

        a, b = torch.randn(2, MATMUL, MATMUL).to(getattr(torch, precision))

        def work() -> None:
            a @ b

        return work

    return prepare


def torchvggish(audio: str) -> Any:
    """The published port with our weights, from files to frames."""

    def prepare(folder: Path, threads: int) -> Work:
        import soundfile
        import torch
        import torchvggish as package
        from safetensors.torch import load_file

        model = package.torchvggish._vgg(postprocess=False).eval()
        model.load_state_dict(load_file(folder / "vggish.safetensors"))

        def work() -> None:
            for path in sorted(folder.glob(audio)):
                samples, rate = soundfile.read(path)
                examples = package.waveform_to_examples(samples, rate)
                with torch.inference_mode():
                    np.save(folder / "rows.npy", model(examples).numpy())

        return work

    return prepare


def openl3(folder: Path, threads: int) -> Work:
    """The published package, untrained, because its speed does not depend on its weights."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import openl3 as package
    import soundfile
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    weights = folder / "openl3.weights.h5"
    package.models.AUDIO_MODELS["mel256"](include_frontend=True).save_weights(weights)
    model = package.models.load_audio_embedding_model_from_path(str(weights), "mel256", 512)
    signal, rate = soundfile.read(folder / "48k/0.wav", dtype="float32")
    options = {"model": model, "hop_size": 0.1, "verbose": False}
    return lambda: package.get_audio_embedding(signal, rate, **options)[0]


def torchopenl3(folder: Path, threads: int) -> Work:
    """The published port, untrained."""
    import soundfile
    import torchopenl3 as package

    model = package.models.PytorchOpenl3("mel256", "music", 512).eval()
    signal, rate = soundfile.read(folder / "48k/0.wav", dtype="float32")
    options = {"model": model, "hop_size": 0.1}
    return lambda: package.get_audio_embedding(signal, rate, **options)[0][0].numpy()


def efficientat(model: str) -> Any:
    """The published inference, clip by clip, with our weights, from files to embeddings.

    The package is not on PyPI. These are its layers (`Network` is the published network, layer
    by layer) and its front end, with the mel filters computed once instead of in each call.
    """

    def prepare(folder: Path, threads: int) -> Work:
        import soundfile
        import torch
        from safetensors.torch import load_file

        from featreg.extract.extractors.efficientat_frontend import mel_filters
        from featreg.extract.extractors.efficientat_network import WIDTHS, Network

        network = Network(WIDTHS[model]).eval()  # type: ignore[index]
        state = load_file(folder / f"efficientat-{model}.safetensors")
        network.load_state_dict(state, strict=False)
        filters = torch.nn.functional.pad(torch.from_numpy(mel_filters()).float(), (0, 1))
        window = torch.hann_window(800, periodic=False)
        emphasis = torch.tensor([[[-0.97, 1.0]]])

        def clip(path: Path) -> Any:
            samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
            samples = torch.nn.functional.conv1d(samples[None, None], emphasis)[0]
            spectrum = torch.stft(samples, 1024, 320, 800, window, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(-1)
            mel = ((filters @ power + 1e-5).log() + 4.5) / 5.0
            maps = network.features(mel[:, None])
            network.classifier(maps)  # it gives both
            return maps.mean((2, 3))

        def work() -> Any:
            with torch.inference_mode():
                found = [clip(path) for path in sorted(folder.glob("32k/*"))]
            return found[0].numpy()

        return work

    return prepare


def efficientat_network(model: str, precision: str) -> Any:
    """featreg, only the network, on windows of 10 s."""

    def prepare(folder: Path, threads: int) -> Work:
        from featreg.extract.conv.threads import in_threads

        extractor = _featreg("efficientat", precision, folder, model=model).extractor()
        noise = np.random.default_rng(0).standard_normal((4, 128, 1000)).astype(np.float32)
        blocks = [noise] * (BATCH["efficientat-mn04"] // 4)
        return lambda: in_threads(extractor._inference.maps, blocks)

    return prepare


# Number of inputs in the batch of `featreg_network`, and their shape.
BATCH = {"vggish": 132, "openl3": 16, "efficientat-mn04": 16, "efficientat-mn10": 16}
SHAPE = {"vggish": (96, 64), "openl3": (256, 199)}
MATMUL = 2048

CONTESTANTS: dict[str, Callable[[Path, int], Work]] = {
    "openl3-wav/openl3": openl3,
    "openl3-wav/torchopenl3": torchopenl3,
    "vggish-mp3-to-shard/torchvggish": torchvggish("mp3/*"),
    "vggish-wav/torchvggish": torchvggish("16k/*"),
}
CONTESTANTS |= {f"efficientat-{m}-wav/published": efficientat(m) for m in ("mn04", "mn10")}
for _precision in ("float32", "bfloat16"):
    for _model in ("mn04", "mn10"):
        CONTESTANTS |= {
            f"efficientat-{_model}-wav/featreg-{_precision}": featreg_rows(
                "efficientat", _precision, "32k/*", output="pooled", model=_model
            ),
        }
    CONTESTANTS |= {
        f"openl3-wav/featreg-{_precision}": featreg_rows("openl3", _precision, "48k/*"),
        f"vggish-mp3-to-shard/featreg-{_precision}": featreg_shard(_precision),
        f"vggish-wav/featreg-{_precision}": featreg_rows(
            "vggish", _precision, "16k/*", output="raw"
        ),
        f"network-{_precision}/matmul": matmul(_precision),
        f"network-{_precision}/featreg-vggish": featreg_network("vggish", _precision),
        f"network-{_precision}/featreg-openl3": featreg_network("openl3", _precision),
        f"network-{_precision}/featreg-efficientat-mn04": efficientat_network("mn04", _precision),
        f"network-{_precision}/featreg-efficientat-mn10": efficientat_network("mn10", _precision),
    }


if __name__ == "__main__":
    serve(CONTESTANTS)
