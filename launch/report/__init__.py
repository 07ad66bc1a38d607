"""Tables, figures and one self-contained page from the records of runs."""
