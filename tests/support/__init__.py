"""What several tests share: models, reports, a browser, a fresh installation."""
