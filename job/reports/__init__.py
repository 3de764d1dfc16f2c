"""What commands show: console tables and HTML pages."""
