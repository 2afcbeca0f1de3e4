"""Audio datasets, audio files, and the storage of features on disk.

Imports go one way: ``datasets <- extract`` and ``datasets <- train``. The packages ``extract``
and ``train`` communicate through files.
"""
