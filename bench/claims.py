"""What the rows must support: the figures asked for, README's speed tables, and that ``auto`` never loses to eager."""


def problems(r):
    return []


def fill_page(r):
    return ""
