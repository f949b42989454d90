"""HTTP to the outside: whom the cluster may contact, safely, and the webhooks that it sends."""
