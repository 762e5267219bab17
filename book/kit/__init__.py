"""What the book needs and its readers do not: pictures, tables, models and data of single chapters."""
