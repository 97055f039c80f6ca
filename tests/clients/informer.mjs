// An informer on firewall policies with the official JavaScript client: prints what it sees, a JSON line each.
// Run as: node informer.mjs, with KUBECONFIG set and @kubernetes/client-node found from NODE_PATH's folder.
import { createRequire } from 'node:module';

const require = createRequire(process.env.CLIENT_FOLDER + '/');
const kubernetes = await import(require.resolve('@kubernetes/client-node'));
const client = kubernetes.default ?? kubernetes;

const config = new client.KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const objects = config.makeApiClient(client.CustomObjectsApi);
const where = { group: 'roost.edge', version: 'v1', namespace: 'central', plural: 'firewallpolicies' };
const path = '/apis/roost.edge/v1/namespaces/central/firewallpolicies';

const tell = (event, item) =>
    console.log(JSON.stringify({ event, name: item.metadata.name, order: item.spec.order }));
const informer = client.makeInformer(config, path, () => objects.listNamespacedCustomObject(where));
for (const event of ['add', 'update', 'delete']) informer.on(event, (item) => tell(event, item));
informer.on('connect', () => console.log(JSON.stringify({ event: 'connect' })));
informer.on('error', (error) => {
    console.log(JSON.stringify({ event: 'error', name: String(error) }));
    setTimeout(() => informer.start(), 200);
});

process.stdin.on('data', (data) => {
    if (data.toString().trim() !== 'list') return;
    const known = informer.list().map((item) => [item.metadata.name, item.spec.order]);
    console.log(JSON.stringify({ event: 'list', known: known.sort() }));
});
process.stdin.on('end', () => process.exit(0));
await informer.start();
