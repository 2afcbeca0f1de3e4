"""Names and shapes of the arrays that each network takes."""

from __future__ import annotations

import importlib

Layout = dict[str, tuple[int, ...]]

# Where each family's network is.
NETWORKS = {
    "vggish": "vggish",
    "openl3": "openl3",
    "musicnn": "musicnn_network",
    "efficientat": "efficientat_network",
}


def layout(name: str) -> Layout:
    """Shape of each array of the weights `name`, by its key in the network's state dict."""
    if name == "vggish_pca":
        return {"eigen_vectors": (128, 128), "means": (128,)}
    import torch

    module = importlib.import_module(
        f"..extractors.{NETWORKS[name.partition('-')[0]]}", __package__
    )
    variant = [module.WIDTHS[name.partition("-")[2]]] if name.startswith("efficientat-") else []
    with torch.device("meta"):  # shapes alone, no memory
        state = module.Network(*variant).state_dict()
    # Batch norms count their batches, which nothing uses.
    return {
        key: tuple(values.shape)
        for key, values in state.items()
        if not key.endswith("num_batches_tracked")
    }
