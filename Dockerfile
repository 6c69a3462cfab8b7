# One image for migrate, api and worker: the command chooses. No build step, Node runs the TypeScript as it is.
FROM node:24-slim
ENV NODE_ENV=production NODE_OPTIONS=--max-semi-space-size=16
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund && npm cache clean --force
# Readable for the user below whatever umask the clone was made with; owned by root, so it cannot change its own code.
COPY --chmod=755 migrations migrations
COPY --chmod=755 src src
# Of the base image's user node; as a number, so that a platform can see that it is not root.
USER 1000:1000
EXPOSE 3000
# The API answers on PORT, the worker on HEALTH_PORT. /livez, because some platforms kill what is unhealthy, and a
# process that waits for its database is better left alone.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["node", "-e", \
  "fetch(`http://127.0.0.1:${process.env.HEALTH_PORT || process.env.PORT || 3000}/livez`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "src/api/main.ts"]
# Last, because another version or revision then builds no layer again. `npm run release` sets both.
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="highload-balance" \
      org.opencontainers.image.description="A balance service for high load: accounts, transfers and holds over HTTP, events on RabbitMQ, an append-only audit ledger on PostgreSQL." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
