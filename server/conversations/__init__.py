"""Live conversations of the widget's visitors: messages, opinions of them, hand-offs to a person."""
