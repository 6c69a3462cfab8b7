export const SERVICE_NODE_OPTIONS: string[];
