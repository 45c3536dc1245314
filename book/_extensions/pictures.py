"""A Sphinx extension that shows figures at the size at which they were drawn.

Notebooks draw with two pixels for each point of the page, so that they are sharp on
fine screens; a file says how many pixels it has to an inch. A phone would shrink wide
figures until nobody can read them: they stand in a box that scrolls, and keep most of
their size.
"""

from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.transforms.post_transforms import SphinxPostTransform

POINTS = 110  # of the page to an inch of a figure, as in snnparams.mplstyle
WIDE = (
    572  # points: on a phone 9.5 of a wider figure were less than 9 pixels; it scrolls
)


class SizePictures(SphinxPostTransform):
    """Give the figures of notebooks their width, and wide ones a box."""

    default_priority = 210  # after MyST-NB has made images of outputs
    formats = ("html",)

    def run(self, **kwargs):
        """Look at every picture that a notebook has drawn."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.app.srcdir, image["uri"])
            if path.suffix != ".png" or "jupyter_execute" not in path.parts:
                continue
            with Image.open(path) as picture:
                dots = picture.info.get("dpi", (POINTS, POINTS))[0]
                width = round(picture.width * POINTS / dots)
            image["width"] = f"{width}px"
            image["classes"].append("no-scaled-link")  # a link would be one more stop
            if width > WIDE:
                box = nodes.container("", image.deepcopy(), classes=["wide-picture"])
                image.replace_self(box)


def setup(app):
    """Register the extension."""
    app.add_post_transform(SizePictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
