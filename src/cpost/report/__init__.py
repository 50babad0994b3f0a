"""What the user sees of a run: tables for a terminal, rows for a spreadsheet."""
