"""The stairs: hello, intent, observation, acknowledge, call; mutual TLS; enrolment.

Host to cloud and cloud to central cloud are the same code: the lower end dials out.
"""
