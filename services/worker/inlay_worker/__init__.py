"""The Celery worker that drafts reports with the model."""
