"""One encoder per modality; each makes a ``Memory``."""
