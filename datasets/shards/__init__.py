"""Storage of native and aligned features on disk."""
