"""Who is who and who may what: roles and their evaluation, and the ways in which an identity is proved."""
