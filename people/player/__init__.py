"""A page of people in 3D beside their video: one HTML file that works from a disk, offline.

    write("clip.html", Film("clip", fps=30, skeleton=H36M_17, bodies=[Body("Person 1", world)]))

``film.py`` turns arrays into the page's data; ``page.html``, ``page.css`` and the ``*.js`` files here are the page.
"""

from .film import Body, Camera, Film, camera_of, film_of, in_image, page, solids, write

__all__ = ["Body", "Camera", "Film", "camera_of", "film_of", "in_image", "page", "solids", "write"]
