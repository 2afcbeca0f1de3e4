"""Names and shapes of the arrays of each network."""

from __future__ import annotations

import importlib

Layout = dict[str, tuple[int, ...]]

# Module of the network of each family.
NETWORKS = {
    "vggish": "vggish",
    "openl3": "openl3",
    "musicnn": "musicnn_network",
    "efficientat": "efficientat_network",
}


def layout(name: str) -> Layout:
    """Shape of each array of the weights `name`, by key of the network's state dict."""
    if name == "vggish_pca":
        return {"eigen_vectors": (128, 128), "means": (128,)}
    import torch

    module = importlib.import_module(
        f"..extractors.{NETWORKS[name.partition('-')[0]]}", __package__
    )
    variant = [module.WIDTHS[name.partition("-")[2]]] if name.startswith("efficientat-") else []
    with torch.device("meta"):  # shapes only, without memory
        state = module.Network(*variant).state_dict()
    # The batch norms' counts of training batches are not used.
    return {
        key: tuple(values.shape)
        for key, values in state.items()
        if not key.endswith("num_batches_tracked")
    }
