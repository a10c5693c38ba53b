"""The surface of a starting portrait as a mesh: cleaned, fitted to its views, coloured, and split into parts."""
