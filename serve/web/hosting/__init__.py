"""How the page is deployed, reached and answered, whatever it shows."""
