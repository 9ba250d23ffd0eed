"""Secrets in texts, replaced before anybody else sees them.

`masked_text` is for everything that is written or printed; recording uses the same masker.
"""

from research_kit.masking.current import CurrentMask, Mask, masked_text, process_mask
from research_kit.masking.log_lines import MaskedFormatter
from research_kit.masking.masker import MASK, build_masker
from research_kit.masking.members import masked_member

__all__ = [
    "MASK",
    "CurrentMask",
    "Mask",
    "MaskedFormatter",
    "build_masker",
    "masked_member",
    "masked_text",
    "process_mask",
]
