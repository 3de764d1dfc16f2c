"""What is written but not spoken as written, for all languages: invisible characters, units."""
