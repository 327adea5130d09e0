"""A page on which models stand side by side on one image while the attack on it grows.

`album` has the images, `view` what is looked at, `models` who looks, `measure` what comes out, `explorer` all that the
page can ask. `server` gives the page as it is computed, `page_file` writes it as one file; page.html, page.css
and page.js are of both.
"""
