"""An FCM that runs here: the HTTP v1 protocol, its limits and its errors. A development tool."""
