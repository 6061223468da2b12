"""The layer contract: what every layer is and does. Knows no single layer."""
