"""Labelled texts in several languages: SIB-200, XNLI, AmericasNLI, MultiTACRED, and plain tables."""

from kontrast.data.languages.read import FORMATS, read_languages
from kontrast.data.languages.texts import LanguageTexts

__all__ = ["FORMATS", "LanguageTexts", "read_languages"]
