"""What a clip is and how it lies on disk.

Imports go one way: ``datasets <- extract`` and ``datasets <- train``. The two
rooms above this one never import each other; files join them.
"""
