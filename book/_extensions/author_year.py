"""A Sphinx extension that lists the literature as the text cites it.

The text says "Holm, 1979"; so does the list, in the order of these names.
"""

import unicodedata

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle
from sphinx.errors import ExtensionError

NAME = "author_year"  # of bibtex_default_style


def label(entry) -> str:
    """Return the authors and the year of a work, as they stand in the text."""
    people = [
        " ".join(map(str, (*person.rich_prelast_names, *person.rich_last_names)))
        for person in entry.persons["author"]
    ]
    names = f"{people[0]} et al." if len(people) > 2 else " and ".join(people)
    return f"{names}, {entry.fields['year']}"


class Labels(BaseLabelStyle):
    """Authors and year, without brackets."""

    def format_labels(self, sorted_entries):
        """Return one label for each work; two works must not share one."""
        labels = [label(entry) for entry in sorted_entries]
        if twice := {one for one in labels if labels.count(one) > 1}:
            raise ExtensionError(f"references.bib: two works are cited as {twice}")
        return labels


class Sorting(BaseSortingStyle):
    """The order of the labels, whatever their accents."""

    def sorting_key(self, entry):
        """Return the letters of a label."""
        letters = unicodedata.normalize("NFKD", label(entry)).casefold()
        return "".join(letter for letter in letters if letter.isalnum())


class AuthorYear(Style):
    """Works as in the style "plain", under their authors and year."""

    default_sorting_style = NAME
    default_label_style = NAME


def setup(app):
    """Register the extension."""
    register_plugin("pybtex.style.labels", NAME, Labels)
    register_plugin("pybtex.style.sorting", NAME, Sorting)
    register_plugin("pybtex.style.formatting", NAME, AuthorYear)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
