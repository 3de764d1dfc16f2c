"""What commands show: console tables, plots and HTML pages."""
