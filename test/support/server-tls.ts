// Certificates for tests, made by openssl, and the settings with which servers use them.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';

/** PEM files. */
export interface ServerTls {
  caFile: string;
  certFile: string;
  keyFile: string;
}

/**
 * An authority of its own, and a certificate from it for one host name. The files are made in the
 * folder.
 */
export function createCertificate(folder: string, hostname: string): ServerTls {
  const inFolder = (name: string) => path.join(folder, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe', timeout: 10_000 });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=Test authority');
  openssl('req', '-new', ...newKey, '-keyout', 'host.key', '-out', 'host.csr', '-subj', `/CN=${hostname}`);
  writeFileSync(inFolder('host.ext'), `subjectAltName=DNS:${hostname}\n`);
  const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'host.ext'];
  openssl('x509', '-req', '-in', 'host.csr', ...signing, '-out', 'host.pem');
  return { caFile: inFolder('ca.pem'), certFile: inFolder('host.pem'), keyFile: inFolder('host.key') };
}

/**
 * RabbitMQ's settings: TLS at this address, for clients with a certificate of the same authority.
 */
export function tlsConfiguration(listener: string, { caFile, certFile, keyFile }: ServerTls): string[] {
  return [
    `listeners.ssl.1 = ${listener}`,
    `ssl_options.cacertfile = ${caFile}`,
    `ssl_options.certfile = ${certFile}`,
    `ssl_options.keyfile = ${keyFile}`,
    'ssl_options.verify = verify_peer',
    'ssl_options.fail_if_no_peer_cert = true',
  ];
}
