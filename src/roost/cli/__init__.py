"""The `roost` command: people's verbs over the API. It has no rights and no knowledge of its own.

`main` has the application and turns errors into exit codes; `kubeconfig`, `connection` and `client`
reach a cloud; `answers` are the shapes it answers with; `output`, `tables` and `progress` make them
readable; the other modules are the verbs, one module per noun.
"""
