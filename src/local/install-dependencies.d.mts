export function installDependencies(root?: string): Promise<string | undefined>;
export function isInstalled(root: string): boolean;
