"""Audio in, frames of a pre-trained feature out."""
