"""How the columns of a row are read as a dialogue about images."""
