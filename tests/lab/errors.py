"""What the lab raises."""


class LabError(Exception):
    """The lab could not do what was asked; the text is for a person."""
