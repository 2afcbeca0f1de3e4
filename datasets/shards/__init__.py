"""How native and aligned features lie on disk."""
