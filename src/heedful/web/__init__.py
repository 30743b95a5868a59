"""The labelling app: pages for the people who write, rate and rank, and for those who lead them.

    heedful label serve RUN

FastAPI and Jinja2 over the store; every page is a form that works without JavaScript. `app` puts it together, `routes`
are its addresses, `tasks` what labelers do, one module each.
"""
