// Runs in the browser, behind Swagger UI's own script.
SwaggerUIBundle({ url: 'openapi.json', dom_id: '#page', deepLinking: true, validatorUrl: null });
