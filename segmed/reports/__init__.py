"""Tables, figures and pages that a person reads."""
