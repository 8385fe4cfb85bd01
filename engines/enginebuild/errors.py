"""What may go wrong while an engine is specified or built. One root: `BuildError`."""


class BuildError(Exception):
    """A build that cannot be made; its text is the sentence to show a person."""


class SpecError(BuildError):
    """A spec file that cannot be read: carries `FILE:LINE:COL: message`."""


class WeightsError(BuildError):
    """Weights that are absent, or are not the ones the model names."""
