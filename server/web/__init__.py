"""What people see: the admin console and the chat widget. HTML, CSS and scripts over HTTP."""
